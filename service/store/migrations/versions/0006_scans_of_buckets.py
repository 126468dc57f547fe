"""scans of buckets"""

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'


def upgrade() -> None:
    op.create_table('scan',
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('bucket', sa.Text(), nullable=False),
    sa.Column('since', sa.BigInteger(), nullable=False),
    sa.Column('mark', sa.BigInteger(), nullable=False),
    sa.Column('looked_at', sa.BigInteger(), nullable=True),
    sa.Column('ended_at', sa.BigInteger(), nullable=True),
    sa.Column('took', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('seen', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('found', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('problem', sa.Text(), server_default='', nullable=False),
    sa.PrimaryKeyConstraint('source', 'bucket')
    )


def downgrade() -> None:
    op.drop_table('scan')
