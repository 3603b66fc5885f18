defmodule Mlx.Weights.WriterTest do
  use ExUnit.Case, async: true
  alias Mlx.Weights.Writer

  @moduletag :tmp_dir

  test "files are there when all are written", %{tmp_dir: folder} do
    [a, b] = for name <- ["a", "b %s"], do: Path.join(folder, name)

    second = fn write ->
      refute File.exists?(a)
      write.(["two ", "parts"])
      write.("!")
    end

    assert Writer.write!([{a, & &1.("one")}, {b, second}]) == :ok
    assert File.read!(a) == "one"
    assert File.read!(b) == "two parts!"
    assert Enum.sort(File.ls!(folder)) == ["a", "b %s"]
  end

  test "nothing is there if one fails", %{tmp_dir: folder} do
    [a, b] = for name <- ["a", "b"], do: Path.join(folder, name)
    File.write!(a, "before")
    failures = [fn -> raise "no" end, fn -> throw(:no) end, fn -> exit(:no) end]

    for failure <- failures do
      files = [
        {a, & &1.("one")},
        {b,
         fn write ->
           write.("some")
           failure.()
         end}
      ]

      assert catch_all(fn -> Writer.write!(files) end) == :failed
      assert File.ls!(folder) == ["a"]
      assert File.read!(a) == "before"
    end
  end

  defp catch_all(fun) do
    fun.()
  catch
    _, _ -> :failed
  end

  test "places that can't be written are refused", %{tmp_dir: folder} do
    File.mkdir!(Path.join(folder, "taken"))

    for {path, message} <- [{"no/x", "no such file"}, {"taken", "taken"}, {"a\0b", "a\\0b"}] do
      path = Path.join(folder, path)
      error = assert_raise Mlx.Error, fn -> Writer.write!([{path, & &1.("x")}]) end
      assert error.kind == :io
      assert error.message =~ message
      assert File.ls!(folder) == ["taken"]
    end
  end

  test "a process that is killed leaves nothing behind", %{tmp_dir: folder} do
    test = self()

    stuck = fn write ->
      write.("some")
      send(test, :written)
      Process.sleep(:infinity)
    end

    {pid, monitor} = spawn_monitor(fn -> Writer.write!([{Path.join(folder, "a"), stuck}]) end)
    assert_receive :written, 60_000
    assert [".mlx-" <> _] = File.ls!(folder)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, _, _, :killed}, 60_000
    assert eventually(fn -> File.ls!(folder) == [] end)
  end

  defp eventually(fun, attempts \\ 1000) do
    fun.() or (attempts > 0 and Process.sleep(20) == :ok and eventually(fun, attempts - 1))
  end
end
