"""From numbers to melting temperature."""
