"""HTTP: how a request arrives, who is asking, which route answers, how a failure looks."""
