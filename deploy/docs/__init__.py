"""Reference pages made from the code, so that they cannot differ from it."""
