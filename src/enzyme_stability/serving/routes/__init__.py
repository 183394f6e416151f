"""What can be asked of the service, a module a subject."""
