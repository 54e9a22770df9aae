"""What money costs: accounts, the ledger, batch jobs."""
