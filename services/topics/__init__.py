"""The topics as declared in schemas/topics.yaml: read them, make them, compare a cluster with them."""
