"""HTTP: the application, its handlers, what a request says and how an answer is written."""
