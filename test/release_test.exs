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

  test "a release has MLX with it, and works in another folder", %{tmp_dir: folder} do
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

    {output, status} = eval(release, "if Mlx.Doctor.run() == :error, do: System.halt(1)")
    assert status == 0, output
    assert output =~ ~r/^ok +NIF +loads/m
    assert output =~ ~r/^ok +MLX .*#{Regex.escape(runtime)}/m
  end
end
