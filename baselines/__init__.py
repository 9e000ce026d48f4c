"""What feature-convex networks are compared with: networks, losses and certificates, one file or package per method."""
