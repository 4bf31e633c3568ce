"""What people do with a model, one file each, on the public API: docs/uses/README.md has the list."""
