"""The archive over HTTP: questions become vectors beside the model, and a deployment of its own searches with them."""
