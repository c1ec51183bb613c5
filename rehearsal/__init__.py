"""AWS on one machine, to try the studio's AWS side without an account: moto answers, and a clocked SageMaker
runs the workers.
"""
