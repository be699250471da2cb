"""What several test files share: small networks, commands, files, assertions."""
