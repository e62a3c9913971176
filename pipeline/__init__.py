"""A run through the house: ingest, express, handshake, prompt, certification, and the command line."""
