"""What a hostile app tries against the host and against another app; each attempt is refused."""
