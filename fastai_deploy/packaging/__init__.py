"""From a bundle to what is uploaded: the artifact, its wheels, and the Lambda's zip."""
