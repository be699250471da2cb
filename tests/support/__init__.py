"""Helpers that several test files share: small networks, commands, files and assertions."""
