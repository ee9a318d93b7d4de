"""What runs on the host. Python standard library only; imports nothing else of deploykit."""
