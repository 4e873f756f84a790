"""Every way in: command line, work pools, deployments."""
