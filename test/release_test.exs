defmodule Mlx.ReleaseTest do
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @moduletag timeout: 600_000

  # Of this project as it is compiled, in another folder.
  defp release(folder) do
    made = Path.join(folder, "made")
    args = ["release", "--no-compile", "--no-deps-check", "--quiet", "--path", made]
    {output, status} = System.cmd("mix", args, stderr_to_stdout: true)
    assert status == 0, output
    moved = Path.join(folder, "moved")
    File.rename!(made, moved)
    moved
  end

  defp eval(release, code) do
    env = [{"MIX_ENV", nil}, {"RELEASE_DISTRIBUTION", "none"}]
    System.cmd(Path.join(release, "bin/mlx"), ["eval", code], stderr_to_stdout: true, env: env)
  end

  # More than anybody waits for.
  @work """
  {:ok, _} = Application.ensure_all_started(:mlx)
  x = Nx.eye(1500, type: :f32, backend: Mlx.Backend)
  spawn(fn -> Nx.to_binary(Enum.reduce(1..3000, x, fn _, y -> Nx.dot(y, x) end)) end)
  Process.sleep(500)
  IO.puts("at work as \#{System.pid()}")
  """

  # The status with which the release ends that was sent the signal at work.
  defp terminated(release, code) do
    options = [:binary, :exit_status, :stderr_to_stdout, line: 1000]
    env = [{~c"MIX_ENV", false}, {~c"RELEASE_DISTRIBUTION", ~c"none"}]
    executable = {:spawn_executable, Path.join(release, "bin/mlx")}
    port = Port.open(executable, [args: ["eval", code], env: env] ++ options)
    assert_receive {^port, {:data, {:eol, "at work as " <> pid}}}, 300_000
    {_, 0} = System.cmd("kill", ["-TERM", pid])
    assert_receive {^port, {:exit_status, status}}, 300_000
    status
  end

  test "a release has MLX with it, works in another folder and ends in the middle of work", %{
    tmp_dir: folder
  } do
    on_exit(fn -> File.rm_rf!(folder) end)
    release = release(folder)
    [runtime] = Path.wildcard(Path.join(release, "lib/mlx-*/priv/runtime"))
    assert File.lstat!(runtime).type == :directory
    assert Path.wildcard(Path.join(runtime, "mlx/lib/libmlx.*")) != []

    {output, status} =
      eval(release, """
      {:ok, _} = Application.ensure_all_started(:mlx)
      Nx.default_backend(Mlx.Backend)
      double = Nx.Defn.jit(&Nx.multiply(&1, 2), compiler: Mlx.Compiler)
      [0, 2, 4] = {3} |> Nx.iota() |> double.() |> Nx.to_list()
      IO.puts("computed")
      """)

    assert {status, output =~ "computed"} == {0, true}, output

    assert {output, 0} = eval(release, @work <> "System.halt(0)")
    assert output =~ "at work"
    assert eval(release, @work <> "System.stop(3); Process.sleep(:infinity)") |> elem(1) == 3
    assert terminated(release, @work <> "Process.sleep(:infinity)") == 0

    {output, status} = eval(release, "if Mlx.Doctor.run() == :error, do: System.halt(1)")
    assert status == 0, output
    assert output =~ ~r/^ok +NIF +loads/m
    assert output =~ ~r/^ok +MLX .*#{Regex.escape(runtime)}/m
  end
end
