"""The API's objects: how they are built from requests, and how they change. Pure."""
