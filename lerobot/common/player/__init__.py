"""The chunk player: what is between a policy that plans chunks and an arm that wants one target per tick."""
