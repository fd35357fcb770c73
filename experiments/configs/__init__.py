"""One file a demo, table or figure; `default.py` has every field."""
