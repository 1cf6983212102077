from hiper.display.tables import Table


def test_a_table_as_markdown():
    table = Table("success", ("method", "after"), [["hiper", "70.1%"], ["a|b", "-"]])
    assert table.markdown() == "| method | after |\n| --- | ---: |\n| hiper | 70.1% |\n| a\\|b | - |"
    assert table._replace(left=2).markdown().splitlines()[1] == "| --- | --- |"
