"""The networks: modules that own parameters, without IO and without losses."""
