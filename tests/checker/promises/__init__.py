"""The promises I1 to I12, a module each: ``check`` answers with what breaks them."""
