"""Files, and batch jobs over them: OpenAI's ``/v1/files`` and ``/v1/batches``.

A job's input is a file with one request per line. The gateways share its lines in chunks, each
held by a lease, and run them through the in-process door of the request path. Results go into
small files that are written once and never changed; an index in the database says which of them
count. The index has one row per line, so a line's result is published once, however often it was
computed (docs/adr has the design).
"""
