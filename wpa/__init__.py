"""wpa: durable workflows on NATS JetStream. See ``docs/ARCHITECTURE.md`` for the words and the house."""
