"""The promises, as a checker: it judges what was recorded of a run, and shares no code with the engine.

``facts`` says what is recorded and reads it from a server, ``interpreter`` says what a plan wants, ``judge``
holds the one against the other. ``python -m tests.checker FACTS.json`` judges a run that was kept in a file,
as strictly as it was judged first.
"""
