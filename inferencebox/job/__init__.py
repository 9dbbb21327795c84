"""The suite as a Job in the cluster whose platform it is about."""
