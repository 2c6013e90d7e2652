"""A small commerce API to try khotan on: real paging, real authentication, and documentation that is wrong in places.

Run it with `python -m khotan_cli.sandbox`. It listens on loopback only, keeps everything in memory, and sends the same
data at every start.
"""
