"""Built-in tasks: small real training jobs on data that ships inside ordinary packages."""
