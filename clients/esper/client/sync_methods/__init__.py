"""The methods of the sync client, a file for each service of the contract."""
