"""PostgreSQL, for any number of server processes on any number of machines."""
