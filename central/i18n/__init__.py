"""Catalogues of the pages' texts, one gettext file per language. The English text is the key."""
