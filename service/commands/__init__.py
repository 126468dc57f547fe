"""The commands, one file a subject. `service.cli` puts them together; each imports what it needs when it is called."""
