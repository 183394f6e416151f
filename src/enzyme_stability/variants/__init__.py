"""Change of the melting temperature on mutation: model, scan, shortlist, designs."""
