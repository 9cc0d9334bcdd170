"""The platform on Kubernetes: manifests made from what the processes and topics are declared to be, for Kustomize."""
