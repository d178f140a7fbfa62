"""A BOINC project and the real BOINC client for tests, on loopback.

    async with boinc_project(directory, validate=worth, usage=processors(2)) as project:
        project.create_work("copilot_e-1", {"enrolment_x7": secret})
        known = (project.url, project.authenticator)
        async with boinc_client(root, attached=known, options={"ncpus": 2}) as client:
            task = await client.task_running("copilot_e-1")
            report = await project.reported("copilot_e-1")
            await client.nothing_left()

What a test should know of the client: it looks once a second, contacts a project on a grid of five
seconds, and not at all for minutes after it got no work or a task failed, unless
`client.project(url, "update")` orders it; it asks for no work while its user suspends a task.
"""
