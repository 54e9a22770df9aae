"""The gateway: authenticate, validate, reserve, enrich, tokenize, admit, route, stream, settle."""
