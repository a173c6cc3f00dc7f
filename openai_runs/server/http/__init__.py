"""HTTP: the application, its routes and handlers, parsing requests and writing answers."""
