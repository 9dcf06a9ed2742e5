"""The promises I1 to I11, a module each: ``check`` answers with what breaks them."""
