defmodule Mix.Tasks.Mlx.BenchTest do
  # The shell of Mix is one for all.
  use ExUnit.Case, async: false

  @moduletag :tmp_dir

  setup do
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(shell) end)
  end

  defp bench(args) do
    Mix.Tasks.Mlx.Bench.run(args)
    printed()
  end

  defp printed do
    receive do
      {:mix_shell, :info, [line]} -> [line | printed()]
    after
      0 -> []
    end
  end

  # A Python that says what Python MLX does, and that each case takes 1000 µs.
  defp python(folder) do
    path = Path.join(folder, "python")

    File.write!(path, """
    #!/bin/sh
    if [ "$1" = -c ]; then echo 0.32.2; exit; fi
    echo "{\\"us\\": {\\"$5\\": 1000.0}}"
    """)

    File.chmod!(path, 0o755)
    path
  end

  test "compares as a table", %{tmp_dir: folder} do
    args = ~w(--only add_256 --only telemetry_hit --rounds 1 --device cpu --python)
    [head, add, hit] = bench(args ++ [python(folder)])
    assert head =~ "device cpu, medians of 1 rounds, microseconds; Python MLX 0.32.2"
    assert ["add_256_and_read", us, "1000.0", ratio] = String.split(add)
    assert_in_delta String.to_float(us) / 1000, String.to_float(ratio), 0.01
    assert ["telemetry_hit", hit] = String.split(hit)
    assert String.to_float(hit) > 0
  end

  test "compares as JSON and nothing else", %{tmp_dir: folder} do
    args = ~w(--only add_256 --only chain_100_jit --rounds 1 --device cpu --json)
    assert [json] = bench(args ++ ["--python", python(folder)])

    assert %{"device" => "cpu", "rounds" => 1, "python" => "0.32.2"} =
             decoded = Jason.decode!(json)

    assert decoded["mlx"] == to_string(Application.spec(:mlx, :vsn))

    assert [%{"name" => "add_256_and_read"}, %{"name" => "chain_100_jit_and_read"}] =
             decoded["cases"]

    for %{"us" => us, "python_us" => python, "ratio" => ratio} <- decoded["cases"] do
      assert python == 1000.0 and us > 0
      assert_in_delta ratio, us / 1000, 1.0e-9
    end
  end

  test "without Python there is no ratio", %{tmp_dir: folder} do
    args = ~w(--only add_256 --rounds 1 --device cpu --json)
    assert [json] = bench(args ++ ["--no-python"])
    assert %{"python" => nil, "cases" => [row]} = Jason.decode!(json)
    assert %{"python_us" => nil, "ratio" => nil, "us" => us} = row
    assert us > 0

    assert_raise Mix.Error, ~r/can't run Python MLX/, fn ->
      bench(args ++ ["--python", Path.join(folder, "nothing")])
    end
  end

  test "has the cases that Python has, and says which there are" do
    names = bench(["--list"])
    assert "block_compiled_and_read" in names and "enqueue_dot" in names
    script = File.read!("bench/python_mlx.py")
    {calls, compared} = Enum.split_with(names, &String.starts_with?(&1, ["enqueue", "telemetry"]))
    for name <- compared, do: assert(script =~ ~s("#{name}": ), name)
    for name <- calls, do: refute(script =~ name)

    assert bench(["--list", "--only", "sum"]) ==
             Enum.filter(names, &String.starts_with?(&1, "sum"))
  end

  test "refuses what it does not know" do
    assert_raise Mix.Error, ~r/no case starts with frob/, fn -> bench(["--only", "frob"]) end
    assert_raise Mix.Error, ~r/no device tpu/, fn -> bench(["--device", "tpu"]) end
    assert_raise Mix.Error, ~r/at least 1/, fn -> bench(["--rounds", "0"]) end
    assert_raise Mix.Error, ~r/takes options only/, fn -> bench(["add_256"]) end
    assert_raise OptionParser.ParseError, fn -> bench(["--frob"]) end
  end
end
