"""The manager's file store on disk: blobs by hash, resumable uploads, signed links."""
