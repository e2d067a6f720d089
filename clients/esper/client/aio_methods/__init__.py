"""The methods of the async client, a file for each service of the contract."""
