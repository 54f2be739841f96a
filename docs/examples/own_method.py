"""A method of one's own. The example follows with the declaration of methods in their own files."""
