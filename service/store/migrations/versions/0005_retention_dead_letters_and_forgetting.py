"""retention, dead letters and forgetting"""

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'


def upgrade() -> None:
    op.create_table('tombstone',
    sa.Column('source', sa.Text(), nullable=False),
    sa.Column('kind', sa.Text(), nullable=False),
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('ref', sa.String(length=26), nullable=False),
    sa.Column('event_ids', sa.JSON(), nullable=False),
    sa.Column('until', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('source', 'kind', 'key')
    )
    op.create_index('ix_tombstone_until', 'tombstone', ['until'])
    op.create_table('handling',
    sa.Column('id', sa.String(length=26), nullable=False),
    sa.Column('what', sa.Text(), server_default='', nullable=False),
    sa.Column('key', sa.Text(), server_default='', nullable=False),
    sa.Column('action', sa.Text(), server_default='', nullable=False),
    sa.Column('by', sa.Text(), server_default='', nullable=False),
    sa.Column('why', sa.Text(), server_default='', nullable=False),
    sa.Column('at', sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_index('ix_handling_what_key', 'handling', ['what', 'key'])
    op.create_table('salt',
    sa.Column('name', sa.Text(), nullable=False),
    sa.Column('value', sa.LargeBinary(), nullable=False),
    sa.PrimaryKeyConstraint('name')
    )
    # Plain ALTER TABLE ... ADD COLUMN, which both stores do without copying the table.
    op.add_column('delivery', sa.Column('body_size', sa.BigInteger(), nullable=True))
    op.add_column('delivery', sa.Column('body_hash', sa.Text(), server_default='', nullable=False))
    op.add_column('delivery', sa.Column('emptied_at', sa.BigInteger(), nullable=True))
    op.add_column('event', sa.Column('retain_until', sa.BigInteger(), nullable=True))
    here = sa.text('emptied_at is null')
    op.create_index('ix_delivery_body', 'delivery', ['received_at'], sqlite_where=here, postgresql_where=here)
    op.create_index('ix_delivery_received_at', 'delivery', ['received_at'])
    op.create_index('ix_event_delivery_id', 'event', ['delivery_id'])
    op.create_index('ix_event_received_at', 'event', ['received_at'])
    op.create_index('ix_run_event_id', 'run', ['event_id'])
    op.create_index('ix_run_decision_id', 'run', ['decision_id'])
    op.create_index('ix_lineage_edge_run_key', 'lineage_edge', ['run_key'])
    # From now on it counts the tries in a row that came to nothing.
    op.execute(sa.text("update decision set attempts = 0"))


def downgrade() -> None:
    op.drop_index('ix_lineage_edge_run_key', table_name='lineage_edge')
    op.drop_index('ix_run_decision_id', table_name='run')
    op.drop_index('ix_run_event_id', table_name='run')
    op.drop_index('ix_event_received_at', table_name='event')
    op.drop_index('ix_event_delivery_id', table_name='event')
    op.drop_index('ix_delivery_received_at', table_name='delivery')
    op.drop_index('ix_delivery_body', table_name='delivery')
    with op.batch_alter_table('event', schema=None) as batch_op:
        batch_op.drop_column('retain_until')

    with op.batch_alter_table('delivery', schema=None) as batch_op:
        batch_op.drop_column('emptied_at')
        batch_op.drop_column('body_hash')
        batch_op.drop_column('body_size')

    for table in ('salt', 'handling', 'tombstone'):
        op.drop_table(table)
