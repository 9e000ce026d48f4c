"""The methods of the suite, one file each; the registry finds every public module in this folder."""
