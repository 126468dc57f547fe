"""answers to code hosts, and secret parameters"""

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'


def upgrade() -> None:
    op.create_table('answer',
    sa.Column('id', sa.String(length=26), nullable=False),
    sa.Column('run_key', sa.String(length=26), nullable=False),
    sa.Column('source', sa.Text(), server_default='', nullable=False),
    sa.Column('repository', sa.Text(), server_default='', nullable=False),
    sa.Column('sha', sa.Text(), server_default='', nullable=False),
    sa.Column('status', sa.Boolean(), nullable=False),
    sa.Column('comment', sa.Boolean(), nullable=False),
    sa.Column('state', sa.Text(), server_default='', nullable=False),
    sa.Column('told', sa.Text(), server_default='', nullable=False),
    sa.Column('detail', sa.Text(), server_default='', nullable=False),
    sa.Column('created_at', sa.BigInteger(), nullable=False),
    sa.Column('due_at', sa.BigInteger(), nullable=True),
    sa.Column('holder', sa.Text(), server_default='', nullable=False),
    sa.Column('lease_until', sa.BigInteger(), server_default='0', nullable=False),
    sa.Column('attempts', sa.Integer(), server_default='0', nullable=False),
    sa.ForeignKeyConstraint(['run_key'], ['run.run_key'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('run_key', name=op.f('uq_answer_run_key'))
    )
    with op.batch_alter_table('answer', schema=None) as batch_op:
        batch_op.create_index('ix_answer_due', ['due_at'], unique=False, sqlite_where=sa.text('due_at is not null'), postgresql_where=sa.text('due_at is not null'))

    with op.batch_alter_table('run', schema=None) as batch_op:
        batch_op.add_column(sa.Column('secrets', sa.JSON(), server_default='{}', nullable=False))
        batch_op.add_column(sa.Column('secret_digest', sa.Text(), server_default='', nullable=False))


def downgrade() -> None:
    with op.batch_alter_table('run', schema=None) as batch_op:
        batch_op.drop_column('secret_digest')
        batch_op.drop_column('secrets')

    with op.batch_alter_table('answer', schema=None) as batch_op:
        batch_op.drop_index('ix_answer_due', sqlite_where=sa.text('due_at is not null'), postgresql_where=sa.text('due_at is not null'))

    op.drop_table('answer')
