"""Steps between versions of the database, run at start. A released step is never changed."""
