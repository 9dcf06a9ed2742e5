// Starts a workflow and follows it to its end, with nothing but NATS. Prints one JSON line.
//   node start.mjs URL TENANT WORKFLOW EXECUTION INPUT
import { connect } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";

const [url, tenant, workflow, execution, input] = process.argv.slice(2);
const nc = await connect({ servers: url });
const terminal = new Set(["workflow_completed", "workflow_failed", "workflow_rolled_back"]);

// 1. Listen, then start.
const live = [];
const events = [];
const subscription = nc.subscribe(`workflow.events.${tenant}.>`);
const ended = (async () => {
  for await (const message of subscription) {
    const event = message.json();
    if (event.execution_id !== execution) continue;
    if (message.subject.endsWith(".live")) {
      live.push(event.event);
      continue;
    }
    events.push({
      seq: event.seq,
      event: event.event,
      type: message.headers?.get("ce-type"),
      id: message.headers?.get("ce-id") === event.id,
      specversion: message.headers?.get("ce-specversion"),
      traceparent: message.headers?.get("traceparent"),
      next: event.data.next,
      output: event.data.output,
    });
    if (terminal.has(event.event)) return;
  }
})();
await nc.flush();
const js = jetstream(nc);
const ack = await js.publish(
  `workflow.tasks.${tenant}`,
  JSON.stringify({
    type: "workflow_start",
    workflow_id: workflow,
    execution_id: execution,
    payload: { input_data: JSON.parse(input) },
  }),
);
const timeout = new Promise((_, reject) => setTimeout(() => reject(new Error("no end within 30 s")), 30_000));
await Promise.race([ended, timeout]);

// 2. The same again, from the stream: an audit is a consumer.
const consumer = await js.consumers.get("WPA_EVENTS", { filter_subjects: `workflow.events.${tenant}.${execution}` });
const replayed = [];
const messages = await consumer.fetch({ max_messages: events.length, expires: 20_000 });
for await (const message of messages) replayed.push(message.json().event);

// 3. Ask, as a request.
const reply = await nc.request(`workflow.api.${tenant}.status`, JSON.stringify({ execution_id: execution }), {
  timeout: 20_000,
});
const status = reply.json().execution.status;

console.log(JSON.stringify({ stream: ack.stream, events, live, replayed, status }));
await nc.drain();
process.exit(0);
