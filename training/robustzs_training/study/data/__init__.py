"""The study's pictures: made from installable packages by one command."""
