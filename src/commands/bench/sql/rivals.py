"""Asks DuckDB or chDB a question over an access log, in a process that has loaded the library already.

Reads lines of JSON from standard input: {"query": …}; answers each with {"seconds": …, "rows": [[…], …]}.
"""
import json
import sys
import time

which, path, threads = sys.argv[1:4]
COLUMNS = ["host", "ident", "who", "t", "zone", "request", "status", "size", "referer", "agent", "took"]

if which == "duckdb":
    import duckdb

    connection = duckdb.connect(config={"threads": int(threads)})
    kinds = {name: "VARCHAR" for name in COLUMNS} | {"status": "INTEGER", "size": "BIGINT", "took": "DOUBLE"}
    connection.execute(
        f"CREATE VIEW log AS SELECT * FROM read_csv('{path}', delim=' ', quote='\"', escape='\"', header=false,"
        f" auto_detect=false, columns={kinds!r})"
    )
    connection.execute("CREATE VIEW log_paths AS SELECT *, split_part(request, ' ', 2) AS path FROM log")

    def ask(query):
        return connection.execute(query).fetchall()

else:
    import chdb

    kinds = {"status": "Int32", "size": "Int64", "took": "Float64"}
    shape = ", ".join(f"{name} {kinds.get(name, 'String')}" for name in COLUMNS)
    log = f"file('{path}', 'CustomSeparated', '{shape}')"
    settings = f" SETTINGS format_custom_escaping_rule='CSV', format_custom_field_delimiter=' ', max_threads={threads}"

    def ask(query):
        answer = chdb.query(query.replace("{log}", log) + settings, "JSONCompactEachRow")
        return [json.loads(line) for line in str(answer).splitlines()]


print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    begin = time.perf_counter()
    rows = ask(json.loads(line)["query"])
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "rows": rows}, default=str), flush=True)
